{{- define "groundswell.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "groundswell.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "groundswell.name" .) .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name (include "groundswell.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "groundswell.selector" -}}
app.kubernetes.io/name: {{ include "groundswell.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "groundswell.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "groundswell.selector" . }}
{{- end }}

{{- define "groundswell.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- define "groundswell.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "groundswell.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "groundswell.tokenSecret" -}}
{{- default (printf "%s-web-token" (include "groundswell.fullname" .)) .Values.webToken.secret }}
{{- end }}

{{- define "groundswell.tokenKey" -}}
{{- if .Values.webToken.secret }}{{ .Values.webToken.key }}{{ else }}token{{ end }}
{{- end }}

{{- define "groundswell.maxReplicas" -}}
{{- default .Values.shards .Values.autoscaling.maxReplicas }}
{{- end }}

{{/* Contradictions that a schema cannot see. */}}
{{- define "groundswell.check" -}}
{{- if gt (int .Values.worker.replicas) (add1 (int .Values.shards) | int) }}
{{- fail (printf "worker.replicas is %d: at most %d workers score with shards=%d, and one more stands by" (int .Values.worker.replicas) (int .Values.shards) (int .Values.shards)) }}
{{- end }}
{{- if gt (int (include "groundswell.maxReplicas" .)) (int .Values.shards) }}
{{- fail (printf "autoscaling.maxReplicas is %d, and shards is %d: further workers would not score" (int .Values.autoscaling.maxReplicas) (int .Values.shards)) }}
{{- end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int (include "groundswell.maxReplicas" .)) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" }}
{{- end }}
{{- end }}

{{/* Security of pods: any node that enforces the restricted standard admits them. */}}
{{- define "groundswell.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "groundswell.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* Settings of every process; secrets are files. */}}
{{- define "groundswell.env" -}}
- { name: GROUNDSWELL_BROKER, value: {{ .Values.kafka.broker | quote }} }
- { name: GROUNDSWELL_PREFIX, value: {{ .Values.kafka.prefix | quote }} }
- { name: GROUNDSWELL_GROUP, value: {{ .Values.kafka.group | quote }} }
- { name: GROUNDSWELL_SHARDS, value: {{ .Values.shards | quote }} }
- { name: GROUNDSWELL_DATADIR, value: /data }
- { name: GROUNDSWELL_WEB_HOST, value: 0.0.0.0 }
- { name: GROUNDSWELL_WEB_PORT, value: "6066" }
- { name: GROUNDSWELL_ANALYST_PORT, value: "6067" }
- { name: GROUNDSWELL_LOG_FORMAT, value: json }
- { name: GROUNDSWELL_WEB_TOKEN_FILE, value: /run/secrets/groundswell/WEB_TOKEN }
{{- range .Values.secrets }}
- { name: GROUNDSWELL_{{ .setting }}_FILE, value: /run/secrets/groundswell/{{ .setting }} }
{{- end }}
{{- range $name, $value := .Values.settings }}
- { name: GROUNDSWELL_{{ $name }}, value: {{ $value | toString | quote }} }
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "groundswell.mounts" -}}
- { name: secrets, mountPath: /run/secrets/groundswell, readOnly: true }
- { name: tmp, mountPath: /tmp }
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "groundswell.volumes" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "groundswell.tokenSecret" . }}
          items: [{ key: {{ include "groundswell.tokenKey" . }}, path: WEB_TOKEN }]
      {{- range .Values.secrets }}
      - secret:
          name: {{ .secret }}
          items: [{ key: {{ .key }}, path: {{ .setting }} }]
      {{- end }}
- name: tmp
  emptyDir: { sizeLimit: 1Gi }
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
