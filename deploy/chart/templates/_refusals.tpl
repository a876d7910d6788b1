{{- /* What a schema cannot say, or not readably: each refusal names the value and the fix. */ -}}
{{- define "segue.refuse" -}}
{{- if not .Values.image.repository }}
{{- fail "image.repository is empty: name the image that you pushed, such as --set image.repository=registry.example.com/segue" }}
{{- end }}
{{- if not .Values.temporal.address }}
{{- fail "temporal.address is empty: set HOST:PORT of Temporal's frontend, such as --set temporal.address=temporal-frontend.temporal.svc:7233" }}
{{- end }}
{{- range $label := keys (include "segue.selector" . | fromYaml) | sortAlpha }}
{{- if hasKey ($.Values.commonLabels | default dict) $label }}
{{- fail (printf "commonLabels has %s, by which the chart finds its own objects: leave it out" $label) }}
{{- end }}
{{- end }}
{{- with .Values.rbac }}
{{- if and .create (not .clusterWide) (not .namespaces) }}
{{- fail "rbac.namespaces is empty: the workers may then roll nothing. List the namespaces of your model servers, such as --set rbac.namespaces={serving}, or set rbac.clusterWide=true" }}
{{- end }}
{{- if and .clusterWide .namespaces }}
{{- fail (printf "rbac.clusterWide is true, and rbac.namespaces lists %s: set only one of them" (join ", " .namespaces)) }}
{{- end }}
{{- if and .create (not $.Values.serviceAccount.create) (not $.Values.serviceAccount.name) }}
{{- fail "serviceAccount.create is false, and serviceAccount.name is empty: name the ServiceAccount to use; the namespace's default one must not get these rights" }}
{{- end }}
{{- end }}
{{- range $name, $given := .Values.notifications }}
{{- if $given.addressSecret }}
{{- if or $given.url $given.secret $given.caSecret $given.timeoutSeconds }}
{{- fail (printf "notifications.%s has an addressSecret and fields of a webhook: give addressSecret alone, or url and secret" $name) }}
{{- end }}
{{- else if not (and $given.url $given.secret) }}
{{- fail (printf "notifications.%s has no receiver: give url and secret of a webhook, or addressSecret of a service" $name) }}
{{- else if or $given.title $given.text }}
{{- fail (printf "notifications.%s is a webhook, which gets a CloudEvent: leave out title and text, which are for services" $name) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.worker.podAccess "proxy") .Values.rbac.create (not .Values.rbac.serving) }}
{{- fail "worker.podAccess is proxy, and rbac.serving is false: set rbac.serving=true, which allows requests to pods through the API server" }}
{{- end }}
{{- if and .Values.controller.enabled .Values.controller.admission (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "controller.admission is true, and Kubernetes %s has no ValidatingAdmissionPolicy: set controller.admission=false; orders by annotations need Kubernetes 1.30" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if not .Values.controller.enabled }}
{{- if .Values.controller.admission }}
{{- fail "controller.admission is true, and controller.enabled is false: set controller.enabled=true too; without the chart's controller, apply deploy/admission/steering.yaml" }}
{{- end }}
{{- if .Values.rbac.profiles }}
{{- fail "rbac.profiles is true, and controller.enabled is false: set controller.enabled=true too; only the controller reads profiles in the cluster" }}
{{- end }}
{{- end }}
{{- if and .Values.cluster.default (not .Values.cluster.name) }}
{{- fail "cluster.default is true, and cluster.name is empty: name the cluster, or leave both out if there is only one" }}
{{- end }}
{{- range $field := list "deploymentName" "buildId" }}
{{- if and (get $.Values.versioning $field) (not $.Values.versioning.enabled) }}
{{- fail (printf "versioning.%s is set, and versioning.enabled is false: set versioning.enabled=true, or leave it out" $field) }}
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if and $.Values.versioning.enabled (has .name (list "SEGUE_DEPLOYMENT_NAME" "SEGUE_BUILD_ID")) }}
{{- fail (printf "extraEnv has %s, which versioning.enabled sets: remove it, and set versioning.deploymentName or versioning.buildId" .name) }}
{{- end }}
{{- end }}
{{- if and (eq (int .Values.worker.healthPort) 8081) .Values.metrics.sdk }}
{{- fail "worker.healthPort is 8081, which metrics.sdk uses: choose another port" }}
{{- end }}
{{- end }}
