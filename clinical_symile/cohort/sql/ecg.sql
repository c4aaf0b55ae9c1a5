-- The ECG of each admission: the earliest within $window hours before or after admission, both ends included, by subject and
-- time. Records that turned out to be unusable (any NaN sample, or only zeros) stand in excluded_records: they are left out
-- before the earliest is taken, so the next one takes their place. Ties: the earlier row of record_list.csv.
SELECT a.hadm_id, r.study_id, r.path, r.time
FROM admissions AS a
JOIN records AS r ON r.subject_id = a.subject_id AND (r.hadm_id IS NULL OR r.hadm_id = a.hadm_id)
WHERE (
        r.time BETWEEN a.admittime - to_microseconds($window_us) AND a.admittime + to_microseconds($window_us)
        OR (r.time IS NULL AND r.hadm_id IS NOT NULL)
      )
  AND r.path NOT IN (SELECT path FROM excluded_records)
QUALIFY row_number() OVER (PARTITION BY a.hadm_id ORDER BY r.time, r.file_order) = 1
ORDER BY a.hadm_id
