"""The levers of targets whose replicas have numbers: StatefulSet and LeaderWorkerSet, held by a partition."""
