"""The names of lint's rules, by which a spec accepts findings."""

from enum import StrEnum


class LintRule(StrEnum):
    """Every rule of ``segue lint``."""

    IMAGE_NOT_IMMUTABLE = "image-not-immutable"
    NO_READINESS_PROBE = "no-readiness-probe"
    READINESS_CANNOT_TELL = "readiness-cannot-tell-a-loaded-model"
    UNAVAILABLE_ON_FEW_REPLICAS = "unavailable-on-few-replicas"
    STOPS_WITH_LOSS = "stops-with-loss"
    REVISION_HISTORY_TOO_LOW = "revision-history-too-low"
    NO_DISRUPTION_BUDGET = "no-disruption-budget"
    BLOCKING_DISRUPTION_BUDGET = "blocking-disruption-budget"
    DEADLINE_SHORTER_THAN_LOAD = "deadline-shorter-than-load"
    SLOW_LOAD_WITHOUT_STARTUP_PROBE = "slow-load-without-startup-probe"
    AUTOSCALER_FIGHTS = "autoscaler-fights"
    EXCEEDS_QUOTA = "exceeds-quota"
    SURGE_DOES_NOT_FIT = "surge-does-not-fit"
    PREEMPTS_OLD_REPLICAS = "preempts-old-replicas"
    VOLUME_NOT_SHARED = "volume-cannot-be-shared"
    OVERLAPPING_SELECTORS = "overlapping-selectors"
    CONTROLLED_BY_ANOTHER = "controlled-by-another-object"
