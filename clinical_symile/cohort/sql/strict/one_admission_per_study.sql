-- A study that lies in the windows of several admissions serves one of them: the admission during whose stay it was taken; if that
-- is none or several, the one whose admittime is nearest; then the smaller hadm_id. Nearness alone would give an ECG of a first
-- stay's last hour to the stay that begins an hour later. Which admission it is does not depend on what else the admissions have.
-- A study may have several images; they stay together.
DELETE FROM {candidates}
WHERE (coalesce(study_id::VARCHAR, path), hadm_id) NOT IN (
    SELECT coalesce(study_id::VARCHAR, path) AS study, hadm_id
    FROM {candidates}
    QUALIFY row_number() OVER (
        PARTITION BY study ORDER BY coalesce(in_stay, false) DESC, abs(since_us) NULLS LAST, hadm_id
    ) = 1
)
