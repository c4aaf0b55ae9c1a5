-- The ECG of each admission: the earliest in the window before or after admission, both ends included, by subject and time.
-- Records that turned out to be unusable (any NaN sample, or only zeros) are left out before the earliest is taken, so the
-- next one takes their place. A record that a hospital's own manifest ties to an admission is that admission's; its time is
-- checked where it is known. Ties: the earlier row of record_list.csv.
INSERT INTO chosen_ecg
SELECT a.hadm_id, r.study_id, r.path, r.time
FROM admissions AS a
JOIN records AS r ON r.subject_id = a.subject_id AND (r.hadm_id IS NULL OR r.hadm_id = a.hadm_id)
WHERE (
        r.time BETWEEN a.admittime - to_microseconds($window_us) AND a.admittime + to_microseconds($window_us)
        OR (r.time IS NULL AND r.hadm_id IS NOT NULL)
      )
  AND r.path NOT IN (SELECT path FROM excluded_files)
QUALIFY row_number() OVER (PARTITION BY a.hadm_id ORDER BY r.time, r.file_order) = 1
