{{- define "segue.fullname" -}}
{{- default .Release.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}-worker
{{- end }}

{{- define "segue.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "segue.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "segue.controller" -}}
{{- default .Release.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}-controller
{{- end }}

{{- define "segue.selector" -}}
app.kubernetes.io/name: segue
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: worker
{{- end }}

{{- /* What Temporal's worker versioning knows the workers by. */ -}}
{{- define "segue.deploymentName" -}}
{{- .Values.versioning.deploymentName | default (.Values.temporal.taskQueue | replace "." "-") }}
{{- end }}

{{- define "segue.buildId" -}}
{{- $digest := .Values.image.digest | default "" | trimPrefix "sha256:" | trunc 12 }}
{{- .Values.versioning.buildId | default $digest | default .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* The build in names and labels. Two builds must not share one, so what is not kept as it is gets a digest. */ -}}
{{- define "segue.buildName" -}}
{{- $build := include "segue.buildId" . }}
{{- $name := regexReplaceAll "[^a-z0-9]" (lower $build) "-" | trunc 30 | trimAll "-" }}
{{- if regexMatch "^[a-z0-9.]{1,30}$" $build }}{{ $name }}{{ else }}{{ $name }}-{{ sha256sum $build | trunc 8 }}{{ end }}
{{- end }}

{{- define "segue.workers" -}}
{{- include "segue.fullname" . }}{{ if .Values.versioning.enabled }}-{{ include "segue.buildName" . }}{{ end }}
{{- end }}

{{- define "segue.workersSelector" -}}
{{ include "segue.selector" . }}
{{- if .Values.versioning.enabled }}
segue.dev/build: {{ include "segue.buildName" . | quote }}
{{- end }}
{{- end }}

{{- define "segue.labels" -}}
{{ include "segue.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of pods that are no workers: neither Service nor disruption budget selects them. */ -}}
{{- define "segue.helperLabels" -}}
{{- merge (dict "app.kubernetes.io/component" "helper") (include "segue.labels" . | fromYaml) | toYaml }}
{{- end }}

{{- /* The metadata of such pods, with what the values add to any pod: a sidecar would keep them from ending. */ -}}
{{- define "segue.helperMetadata" -}}
labels:
  {{- merge (include "segue.helperLabels" .root | fromYaml) (.root.Values.podLabels | default dict) | toYaml | nindent 2 }}
{{- with merge (.annotations | default dict) (.root.Values.podAnnotations | default dict) }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "segue.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* How a client of Temporal connects: environment variables of the SDK. */ -}}
{{- define "segue.temporalEnv" -}}
{{- with .Values.temporal }}
- {name: TEMPORAL_ADDRESS, value: {{ .address | quote }}}
- {name: TEMPORAL_NAMESPACE, value: {{ .namespace | quote }}}
- {name: SEGUE_TASK_QUEUE, value: {{ .taskQueue | quote }}}
{{- if or .tls.enabled .tls.caSecret .tls.clientCertificateSecret .tls.serverName }}
- {name: TEMPORAL_TLS, value: "true"}
{{- end }}
{{- with .tls.serverName }}
- {name: TEMPORAL_TLS_SERVER_NAME, value: {{ . | quote }}}
{{- end }}
{{- if .tls.caSecret }}
- {name: TEMPORAL_TLS_SERVER_CA_CERT_PATH, value: /etc/segue/temporal/ca.crt}
{{- end }}
{{- if .tls.clientCertificateSecret }}
- {name: TEMPORAL_TLS_CLIENT_CERT_PATH, value: /etc/segue/temporal/tls.crt}
- {name: TEMPORAL_TLS_CLIENT_KEY_PATH, value: /etc/segue/temporal/tls.key}
{{- end }}
{{- if .apiKey.secret }}
- name: TEMPORAL_API_KEY
  valueFrom: {secretKeyRef: {name: {{ .apiKey.secret | quote }}, key: {{ .apiKey.key | quote }}}}
{{- end }}
{{- end }}
{{- end }}

{{- define "segue.versionEnv" -}}
{{- if .Values.versioning.enabled }}
- {name: SEGUE_DEPLOYMENT_NAME, value: {{ include "segue.deploymentName" . | quote }}}
- {name: SEGUE_BUILD_ID, value: {{ include "segue.buildId" . | quote }}}
{{- end }}
{{- end }}

{{- /* This cluster, if several share Temporal: docs/clusters.md. */ -}}
{{- define "segue.clusterEnv" -}}
{{- with .Values.cluster }}
{{- if .name }}
- {name: SEGUE_CLUSTERS, value: {{ toJson (dict .name (dict "default" .default)) | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{- /* The settings of a controller. */ -}}
{{- define "segue.controllerEnv" -}}
- {name: SEGUE_CLUSTER, value: {{ .Values.cluster.name | default .Values.controller.cluster | quote }}}
{{- include "segue.clusterEnv" . }}
{{- with .Values.worker }}
- {name: SEGUE_HEALTH_ADDRESS, value: ":{{ .healthPort }}"}
- {name: SEGUE_LOG_LEVEL, value: {{ .logLevel }}}
- {name: SEGUE_LOG_FORMAT, value: {{ .logFormat }}}
{{- with .otlpEndpoint }}
- {name: SEGUE_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if .Values.encryption.secret }}
- {name: SEGUE_ENCRYPTION_KEYS, value: /etc/segue/encryption/keys.toml}
{{- end }}
{{- end }}

{{- /* The settings of a worker: docs/operating.md. */ -}}
{{- define "segue.workerEnv" -}}
{{- include "segue.clusterEnv" . }}
{{- with .Values.worker }}
- {name: SEGUE_HEALTH_ADDRESS, value: ":{{ .healthPort }}"}
- {name: SEGUE_LOG_LEVEL, value: {{ .logLevel }}}
- {name: SEGUE_LOG_FORMAT, value: {{ .logFormat }}}
{{- with int .maxConcurrentActivities }}
- {name: SEGUE_MAX_CONCURRENT_ACTIVITIES, value: "{{ . }}"}
{{- end }}
- {name: SEGUE_GRACEFUL_SHUTDOWN_S, value: "{{ int .gracefulShutdownSeconds }}"}
- {name: SEGUE_POD_ACCESS, value: {{ .podAccess }}}
{{- with .otlpEndpoint }}
- {name: SEGUE_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if .Values.metrics.sdk }}
- {name: SEGUE_SDK_METRICS_ADDRESS, value: "0.0.0.0:8081"}
{{- end }}
{{- $providers := dict }}
{{- range $name, $given := .Values.prometheus }}
{{- $provider := dict "url" $given.url }}
{{- with $given.timeoutSeconds }}{{ $_ := set $provider "timeout_s" . }}{{ end }}
{{- if $given.bearerTokenSecret }}{{ $_ := set $provider "bearer_token_file" (printf "/etc/segue/prometheus/%s/token" $name) }}{{ end }}
{{- if $given.caSecret }}{{ $_ := set $provider "ca_file" (printf "/etc/segue/prometheus/%s/ca.crt" $name) }}{{ end }}
{{- $_ := set $providers $name $provider }}
{{- end }}
{{- with $providers }}
- {name: SEGUE_PROMETHEUS, value: {{ toJson . | quote }}}
{{- end }}
{{- $webhooks := dict }}
{{- range $name, $given := .Values.webhooks }}
{{- $webhook := dict "url" $given.url "secret_file" (printf "/etc/segue/webhooks/%s/secret" $name) }}
{{- with $given.timeoutSeconds }}{{ $_ := set $webhook "timeout_s" . }}{{ end }}
{{- if $given.caSecret }}{{ $_ := set $webhook "ca_file" (printf "/etc/segue/webhooks/%s/ca.crt" $name) }}{{ end }}
{{- $_ := set $webhooks $name $webhook }}
{{- end }}
{{- with $webhooks }}
- {name: SEGUE_WEBHOOKS, value: {{ toJson . | quote }}}
{{- end }}
{{- $receivers := dict }}
{{- range $name, $given := .Values.notifications }}
{{- $receiver := dict "address_file" (printf "/etc/segue/notifications/%s/address" $name) }}
{{- if $given.url }}
{{- $receiver = dict "url" $given.url "secret_file" (printf "/etc/segue/notifications/%s/secret" $name) }}
{{- with $given.timeoutSeconds }}{{ $_ := set $receiver "timeout_s" . }}{{ end }}
{{- if $given.caSecret }}{{ $_ := set $receiver "ca_file" (printf "/etc/segue/notifications/%s/ca.crt" $name) }}{{ end }}
{{- end }}
{{- with $given.title }}{{ $_ := set $receiver "title" . }}{{ end }}
{{- with $given.text }}{{ $_ := set $receiver "text" . }}{{ end }}
{{- $_ := set $receivers $name $receiver }}
{{- end }}
{{- with $receivers }}
- {name: SEGUE_NOTIFICATIONS, value: {{ toJson . | quote }}}
{{- end }}
{{- if .Values.policy.configMap }}
- {name: SEGUE_POLICY, value: /etc/segue/policy/policy.yaml}
{{- end }}
{{- with .Values.worker.temporalUi }}
- {name: SEGUE_TEMPORAL_UI, value: {{ . | quote }}}
{{- end }}
{{- with .Values.supervised }}
- {name: SEGUE_SUPERVISED, value: {{ toJson . | quote }}}
{{- end }}
{{- with .Values.servingCredentials }}
{{- if .secret }}
- name: SEGUE_SERVING_CREDENTIALS
  valueFrom: {secretKeyRef: {name: {{ .secret | quote }}, key: {{ .key | quote }}}}
{{- end }}
{{- end }}
{{- if .Values.encryption.secret }}
- {name: SEGUE_ENCRYPTION_KEYS, value: /etc/segue/encryption/keys.toml}
{{- end }}
{{- end }}

{{- /* The sources of the volume /etc/segue: every key that a setting names as a file. */ -}}
{{- define "segue.temporalFiles" -}}
{{- with .Values.temporal.tls }}
{{- with .caSecret }}
- secret: {name: {{ . | quote }}, items: [{key: ca.crt, path: temporal/ca.crt}]}
{{- end }}
{{- with .clientCertificateSecret }}
- secret: {name: {{ . | quote }}, items: [{key: tls.crt, path: temporal/tls.crt}, {key: tls.key, path: temporal/tls.key}]}
{{- end }}
{{- end }}
{{- end }}

{{- /* The same with what every client needs to read what Temporal stores. */ -}}
{{- define "segue.clientFiles" -}}
{{- include "segue.temporalFiles" . }}
{{- with .Values.encryption }}
{{- if .secret }}
- secret: {name: {{ .secret | quote }}, items: [{key: {{ .key | quote }}, path: encryption/keys.toml}]}
{{- end }}
{{- end }}
{{- end }}

{{- define "segue.files" -}}
{{- include "segue.clientFiles" . }}
{{- range $name, $given := .Values.prometheus }}
{{- with $given.bearerTokenSecret }}
- secret: {name: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: prometheus/{{ $name }}/token}]}
{{- end }}
{{- with $given.caSecret }}
- secret: {name: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: prometheus/{{ $name }}/ca.crt}]}
{{- end }}
{{- end }}
{{- range $name, $given := .Values.webhooks }}
- secret: {name: {{ $given.secret.name | quote }}, items: [{key: {{ $given.secret.key | quote }}, path: webhooks/{{ $name }}/secret}]}
{{- with $given.caSecret }}
- secret: {name: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: webhooks/{{ $name }}/ca.crt}]}
{{- end }}
{{- end }}
{{- range $name, $given := .Values.notifications }}
{{- range $file, $secret := dict "secret" $given.secret "ca.crt" $given.caSecret "address" $given.addressSecret }}
{{- with $secret }}
- secret: {name: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: notifications/{{ $name }}/{{ $file }}}]}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.policy }}
{{- if .configMap }}
- configMap: {name: {{ .configMap | quote }}, items: [{key: {{ .key | quote }}, path: policy/policy.yaml}]}
{{- end }}
{{- end }}
{{- end }}

{{- /* The pods of workers and controllers: `name`, `account`, `args`, `env`, `files`, `selector`, `resources`; `grace` and
    `sdkMetrics` only for workers. */ -}}
{{- define "segue.servingPod" -}}
{{- $root := .root }}
{{- $selector := .selector }}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- merge (fromYaml .selector) (include "segue.labels" .root | fromYaml) ($values.podLabels | default dict) | toYaml | nindent 4 }}
  {{- with $values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ .account | quote }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  {{- with .grace }}
  terminationGracePeriodSeconds: {{ . }}
  {{- end }}
  securityContext: {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - labelSelector:
        matchLabels: {{- $selector | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
      {{- toYaml . | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "segue.image" $root }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: {{- toYaml .args | nindent 8 }}
      env:
        {{- .env | trim | nindent 8 }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: health, containerPort: {{ $values.worker.healthPort }}}
        {{- if .sdkMetrics }}
        - {name: sdk-metrics, containerPort: 8081}
        {{- end }}
      # It listens only after it has connected, so its start may take as long as Temporal does.
      startupProbe:
        httpGet: {path: /healthz, port: health}
        periodSeconds: 2
        failureThreshold: 30
      livenessProbe:
        httpGet: {path: /healthz, port: health}
        periodSeconds: 10
        timeoutSeconds: 5
      readinessProbe:
        httpGet: {path: /readyz, port: health}
        periodSeconds: 5
        timeoutSeconds: 5
      resources: {{- toYaml .resources | nindent 8 }}
      securityContext: {{- toYaml $values.securityContext | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if .files }}
        - {name: files, mountPath: /etc/segue, readOnly: true}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
    {{- with .files }}
    - name: files
      projected:
        sources: {{- . | trim | nindent 10 }}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- /* The pod of a command that runs once: `name`, `account`, `args`, `env` and `files`. */ -}}
{{- define "segue.helperPod" -}}
{{- $values := .root.Values -}}
restartPolicy: Never
serviceAccountName: {{ .account | quote }}
enableServiceLinks: false
securityContext: {{- toYaml $values.podSecurityContext | nindent 2 }}
{{- with $values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .name }}
    image: {{ include "segue.image" .root }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args: {{ toJson .args }}
    env:
      {{- .env | trim | nindent 6 }}
      {{- with $values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    resources:
      requests: {cpu: 50m, memory: 128Mi}
      limits: {memory: 512Mi}
    securityContext: {{- toYaml $values.securityContext | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- if .files }}
      - {name: files, mountPath: /etc/segue, readOnly: true}
      {{- end }}
      {{- with $values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
  {{- with .files }}
  - name: files
    projected:
      sources: {{- . | trim | nindent 8 }}
  {{- end }}
  {{- with $values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* The rules of one published file of rights, as a list. */ -}}
{{- define "segue.rules" -}}
{{- (index (splitList "\n---" (.root.Files.Get (printf "rights/%s.yaml" .file))) 0 | fromYaml).rules | toYaml }}
{{- end }}
