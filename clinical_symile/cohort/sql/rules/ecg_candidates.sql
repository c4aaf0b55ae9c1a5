-- The ECGs that lie in an admission's window before or after admission, both ends included, by subject and time. A record that a
-- hospital's own manifest ties to an admission is that admission's; its time is checked where it is known.
INSERT INTO ecg_candidates
SELECT a.hadm_id, r.study_id, r.path, r.time, r.file_order,
       epoch_us(r.time) - epoch_us(a.admittime),
       r.time >= a.admittime AND r.time <= least(a.dischtime, a.deathtime)
FROM admissions AS a
JOIN records AS r ON r.subject_id = a.subject_id
WHERE (r.hadm_id IS NULL OR r.hadm_id = a.hadm_id)
  AND (
        r.time BETWEEN a.admittime - to_microseconds($window_us) AND a.admittime + to_microseconds($window_us)
        OR (r.time IS NULL AND r.hadm_id IS NOT NULL)
      )
