#!/bin/sh
# The steps of the image (deploy/image/Dockerfile), run from the folder of the sources:
#   install.sh libraries EXTRAS PLUGINS   create /app with the libraries of the package and its extras, in the versions of the lock
#   install.sh package                    add Groundswell itself
#   install.sh kernels                    compile the kernels into /app/kernels
# APP names another folder than /app, PYTHON another interpreter.
set -eu
app=${APP:-/app}
python=${PYTHON:-python3}
export UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=${UV_NO_CACHE-1}
uv() { "$app.uv/bin/uv" "$@"; }

case $1 in
libraries)
  "$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --root-user-action ignore --target "$app.uv" uv
  uv venv --quiet --python "$python" "$app"
  # The lock as constraints: the versions of the tests, and of these only what the package and its extras need.
  sed -n '/^[A-Za-z0-9]/ s/ *\$//p' requirements.lock > "$app.constraints"
  "$app/bin/python" - "$2" > "$app.in" <<'PYTHON'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = [project["optional-dependencies"][name] for name in sys.argv[1].split(",") if name]
print("\n".join(project["dependencies"] + sum(extras, [])))
PYTHON
  uv pip install --quiet --python "$app/bin/python" --constraint "$app.constraints" --requirement "$app.in" setuptools
  # shellcheck disable=SC2086 # several plugins, separated by blanks
  [ -z "${3:-}" ] || uv pip install --quiet --python "$app/bin/python" $3
  ;;
package)
  uv pip install --quiet --python "$app/bin/python" --no-deps --no-build-isolation .
  ;;
kernels)
  # Not beside the sources of this folder, but those of the installation: numba finds kernels by the path of their module.
  folder=$PWD
  cd /
  NUMBA_CACHE_DIR=$app/kernels "$app/bin/python" "$folder/deploy/image/compile_kernels.py"
  rm -rf "$app.uv" "$app.constraints" "$app.in"
  ;;
esac
