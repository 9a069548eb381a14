{{/* Names of objects are fixed: there is one platform a cluster, and its parts find one another by them
     (src/torpor/cluster/names.py). */}}

{{/* Labels by which pods are selected: (dict "root" $ "component" "gateway") */}}
{{- define "torpor.selector" -}}
app.kubernetes.io/part-of: torpor
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "torpor.labels" -}}
{{ include "torpor.selector" . }}
app.kubernetes.io/name: torpor
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* metadata of an object of a component: (dict "root" $ "component" "gateway" "name" "torpor-gateway") */}}
{{- define "torpor.metadata" -}}
name: {{ .name | default (printf "torpor-%s" .component) }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "torpor.labels" . | nindent 2 }}
{{- end }}

{{/* The same for an object that is in no namespace. */}}
{{- define "torpor.clusterMetadata" -}}
name: {{ .name | default (printf "torpor-%s" .component) }}
labels: {{- include "torpor.labels" . | nindent 2 }}
{{- end }}

{{- define "torpor.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Where callers reach the gateway, without a slash at its end. */}}
{{- define "torpor.url" -}}
{{- $hosts := list }}
{{- range .Values.ingress.hosts }}{{ if not (hasPrefix "*" .) }}{{ $hosts = append $hosts . }}{{ end }}{{ end }}
{{- $names := list }}
{{- range .Values.httpRoute.hostnames }}{{ if not (hasPrefix "*" .) }}{{ $names = append $names . }}{{ end }}{{ end }}
{{- if .Values.url -}}
{{ .Values.url | trimSuffix "/" }}
{{- else if and .Values.ingress.enabled $hosts -}}
{{ if .Values.ingress.tls }}https{{ else }}http{{ end }}://{{ first $hosts }}
{{- else if and .Values.httpRoute.enabled $names -}}
http://{{ first $names }}
{{- else -}}
http://torpor-gateway.{{ .Release.Namespace }}.svc
{{- end }}
{{- end }}

{{- define "torpor.domain" -}}
{{ .Values.domain | default (get (urlParse (include "torpor.url" .)) "hostname") }}
{{- end }}

{{- define "torpor.natsUrl" -}}
{{ .Values.nats.url | default (printf "nats://torpor-nats.%s.svc:4222" .Release.Namespace) }}
{{- end }}

{{/* Where blobs are kept; nothing where the platform has no place for them. */}}
{{- define "torpor.blobsStore" -}}
{{- if .Values.blobs.url -}}
{{ .Values.blobs.url }}
{{- else if not .Values.kafka.bootstrapServers -}}
{{ include "torpor.natsUrl" . }}
{{- end }}
{{- end }}

{{/* Where functions find them. */}}
{{- define "torpor.blobsUrl" -}}
{{- if include "torpor.blobsStore" . -}}
http://torpor-api.{{ .Release.Namespace }}.svc:8082/blobs
{{- end }}
{{- end }}

{{/* What a part reads that keeps blobs. Who it is in an object store is in these variables too, or in its identity. */}}
{{- define "torpor.blobsEnvironment" -}}
- {name: TORPOR_BLOBS_STORE, value: {{ include "torpor.blobsStore" . | quote }}}
- {name: TORPOR_BLOBS_URL, value: {{ include "torpor.blobsUrl" . | quote }}}
{{- range $name, $value := .Values.blobs.options }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{/* What takes in and delivers events reads of its broker. */}}
{{- define "torpor.brokerEnvironment" -}}
{{- if .Values.kafka.bootstrapServers }}
- {name: TORPOR_BROKER_URL, value: {{ printf "kafka://%s/%s" .Values.kafka.bootstrapServers .Values.kafka.prefix | quote }}}
{{- if .Values.kafka.optionsSecret.name }}
- {name: TORPOR_KAFKA_OPTIONS, value: {{ printf "/etc/torpor/kafka/%s" .Values.kafka.optionsSecret.key | quote }}}
{{- end }}
{{- else }}
- {name: TORPOR_BROKER_URL, value: {{ include "torpor.natsUrl" . | quote }}}
{{- include "torpor.natsToken" . }}
{{- end }}
{{- end }}

{{- define "torpor.natsSecret" -}}
{{ .Values.nats.tokenSecret.name | default "torpor-nats" }}
{{- end }}

{{/* An external NATS may ask for no token. */}}
{{- define "torpor.natsToken" }}
- {name: TORPOR_NATS_COPIES, value: {{ .Values.nats.replicas | quote }}}
{{- if or .Values.nats.enabled .Values.nats.tokenSecret.name }}
- name: TORPOR_NATS_TOKEN
  valueFrom: {secretKeyRef: {name: {{ include "torpor.natsSecret" . }}, key: {{ .Values.nats.tokenSecret.key }}}}
{{- end }}
{{- end }}

{{/* What is read by a part that traces, or has functions do so: a list, which may be empty. */}}
{{- define "torpor.tracingEnvironment" -}}
{{- with .Values.tracing.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ quote . }}}
- {name: OTEL_TRACES_SAMPLER, value: parentbased_traceidratio}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ $.Values.tracing.sampleRatio | toString | quote }}}
{{- end }}
{{- end }}

{{/* What of a pod's spec keeps the restricted Pod Security profile. */}}
{{- define "torpor.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "torpor.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a component's pods go: apart from one another as far as it can be. */}}
{{- define "torpor.scheduling" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "torpor.selector" . | nindent 8 }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Rules for leading by the Lease of this name; a name can't be asked for where something is created. */}}
{{- define "torpor.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ . }}]
  verbs: [get, watch, update, patch]
{{- end }}
