-- The labs of each admission: of each item the earliest value in the window before or after admission, both ends included, by
-- subject and time, whatever the row's own hadm_id says (MIMIC leaves it empty in a quarter of the rows).
-- Rows without a number are not in lab_results. Ties: the earlier row of the table.
INSERT INTO chosen_labs
SELECT a.hadm_id, l.itemid, l.value
FROM admissions AS a
JOIN lab_results AS l ON l.subject_id = a.subject_id
WHERE l.time BETWEEN a.admittime - to_microseconds($window_us) AND a.admittime + to_microseconds($window_us)
QUALIFY row_number() OVER (PARTITION BY a.hadm_id, l.itemid ORDER BY l.time, l.file_order) = 1
