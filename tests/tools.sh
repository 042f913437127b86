#!/usr/bin/env bash
# Install the programs that some tests need: Chromium, and Prometheus with promtool. Chromium is installed with apt, as root;
# Prometheus is extracted from its package into build/tools, so that no service is installed and started.
# Prints nothing if both exist. If one cannot be installed: one line that names it, and with NEED_TOOLS set exit code 1.
set -uo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/build/tools
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get --quiet=2 -o DPkg::Lock::Timeout=300)

have_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
have_promtool() { have promtool && have prometheus; }
have() { command -v "$1" || [ -x "$tools/$1" ]; }

updated=
update() {
  [ -n "$updated" ] || { updated=1; "${apt[@]}" update; }
}

get_browser() {
  "${apt[@]}" install --no-install-recommends --yes chromium 2>/dev/null \
    || { update && "${apt[@]}" install --no-install-recommends --yes chromium; }
}

get_promtool() (
  folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && chmod 755 "$folder" && cd "$folder" || exit 1
  "${apt[@]}" download prometheus 2>/dev/null || { update && "${apt[@]}" download prometheus; } || exit 1
  dpkg-deb --extract prometheus_*.deb . && install -D --target-directory "$tools" usr/bin/promtool usr/bin/prometheus
)

missing=()
for tool in browser promtool; do
  have_$tool > /dev/null && continue
  if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "installing with apt, for the tests: $tool"
    log=$(get_$tool 2>&1) && have_$tool > /dev/null && continue
    echo "$log" | tail -n 3
  fi
  missing+=("$tool")
done
[ ${#missing[@]} -gt 0 ] || exit 0
echo "missing, so tests are skipped: ${missing[*]}; as root: apt-get update && apt-get install chromium prometheus"
[ -z "${NEED_TOOLS:-}" ]
