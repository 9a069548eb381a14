{{/* As a laptop's (src/torpor/events/nats_server.py): an answer means that it is on the disk, and the limit of a stream
     reserves nothing of it. */}}
{{- define "torpor.natsConfig" -}}
port: 4222
http_port: 8222
max_payload: 8MB
authorization { token: $NATS_TOKEN }
jetstream {
  store_dir: /data
  max_file_store: 1PB
  sync_interval: always
}
{{- if gt (int .Values.nats.replicas) 1 }}
cluster {
  name: torpor
  port: 6222
  authorization { user: routes, password: $NATS_TOKEN }
}
{{- end }}
{{- end }}

{{- define "torpor.natsRoutes" -}}
{{- $routes := list }}
{{- range $number := until (int .Values.nats.replicas) }}
{{- $routes = append $routes (printf "nats://routes:$(NATS_TOKEN)@torpor-nats-%d.torpor-nats-servers.%s.svc:6222" $number $.Release.Namespace) }}
{{- end }}
{{- join "," $routes }}
{{- end }}
