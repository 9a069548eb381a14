{{/* A part of the platform that runs the platform's image: account, Deployment, and a budget for evictions.
     (dict "root" $ "component" "gateway" "values" .Values.gateway "ports" (dict "http" 8080) "grace" 330
           "environment" "- name: ..." "preStopSeconds" 5 "secret" (dict "name" "mine" "path" "/etc/x")
           "blobs" .Values.blobs)
     What "blobs" has says who the part is in an object store. */}}
{{- define "torpor.part" -}}
{{- $blobs := .blobs | default dict }}
apiVersion: v1
kind: ServiceAccount
metadata: {{- include "torpor.metadata" . | nindent 2 }}
{{- with $blobs.serviceAccountAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
{{- end }}
automountServiceAccountToken: false
---
apiVersion: apps/v1
kind: Deployment
metadata: {{- include "torpor.metadata" . | nindent 2 }}
spec:
  replicas: {{ .values.replicas }}
  revisionHistoryLimit: 3
  selector:
    matchLabels: {{- include "torpor.selector" . | nindent 6 }}
  # Another one is ready before one goes.
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  template:
    metadata:
      labels: {{- include "torpor.labels" . | nindent 8 }}
        {{- with $blobs.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .root.Values.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: torpor-{{ .component }}
      automountServiceAccountToken: true
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ .grace }}
      {{- include "torpor.podSecurity" . | nindent 6 }}
      {{- include "torpor.scheduling" . | nindent 6 }}
      containers:
        - name: {{ .component }}
          image: {{ include "torpor.image" .root | quote }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: [role, {{ .component }}]
          ports:
            - {name: agent, containerPort: 8081}
            {{- range $name, $port := .ports }}
            - {name: {{ $name }}, containerPort: {{ $port }}}
            {{- end }}
          env:
            - name: TORPOR_POD
              valueFrom: {fieldRef: {fieldPath: metadata.name}}
            - name: TORPOR_PLATFORM_NAMESPACE
              valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
            - {name: TORPOR_LOG_LEVEL, value: {{ .root.Values.logLevel }}}
            {{- with .environment }}
            {{- . | nindent 12 }}
            {{- end }}
          {{- with dig "secret" "name" "" $blobs }}
          envFrom:
            - secretRef: {name: {{ . }}}
          {{- end }}
          startupProbe: {httpGet: {path: /healthz/live, port: agent}, periodSeconds: 1, failureThreshold: 120}
          livenessProbe: {httpGet: {path: /healthz/live, port: agent}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
          readinessProbe: {httpGet: {path: /healthz/ready, port: agent}, periodSeconds: 2, timeoutSeconds: 2}
          {{- with .preStopSeconds }}
          # Until nobody sends anything here any more.
          lifecycle: {preStop: {sleep: {seconds: {{ . }}}}}
          {{- end }}
          resources: {{- toYaml .values.resources | nindent 12 }}
          {{- include "torpor.containerSecurity" . | nindent 10 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- if dig "secret" "name" "" . }}
            - {name: secret, mountPath: {{ .secret.path }}, readOnly: true}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {}
        {{- if dig "secret" "name" "" . }}
        - name: secret
          secret: {secretName: {{ .secret.name }}}
        {{- end }}
{{- if gt (int .values.replicas) 1 }}
---
{{ include "torpor.budget" . }}
{{- end }}
{{- end }}

{{- define "torpor.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "torpor.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "torpor.selector" . | nindent 6 }}
{{- end }}
