-- The results that lie in the window of an admission that is left, before or after admission, both ends included, by subject and
-- time, whatever the row's own hadm_id says (MIMIC leaves it empty in a quarter of the rows). Rows without a number are not in
-- lab_results. All of MIMIC's results would not fit into memory, so only the earliest of each verdict is kept, and their number:
-- the first by time, then by the row's place in the file, then by value.
INSERT INTO lab_candidates
SELECT a.hadm_id, l.itemid, u.unit IS NULL AS unit_fits, l.value >= m.low AND l.value <= m.high AS plausible, count(*),
       min({'time': l.time, 'file_order': l.file_order, 'value': l.value})
FROM admissions AS a
JOIN lab_results AS l ON l.subject_id = a.subject_id
JOIN lab_limits AS m ON m.itemid = l.itemid
LEFT JOIN other_units AS u ON u.itemid = l.itemid AND u.unit = l.unit
WHERE l.time BETWEEN a.admittime - to_microseconds($window_us) AND a.admittime + to_microseconds($window_us)
GROUP BY a.hadm_id, l.itemid, unit_fits, plausible
