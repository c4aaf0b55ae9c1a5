-- The results of one file that can be used, in MIMIC's units. code_units holds the codes and units that stand for an item.
INSERT INTO lab_results (subject_id, itemid, time, value, unit, file_order)
SELECT s.id, c.itemid, r.time, r.value * c.factor, c.unit, r.file_order
FROM part_rows AS r
JOIN code_units AS c ON c.code = r.code AND c.code_unit = r.unit
JOIN subject_keys AS s ON s.key = r.person
WHERE r.filled AND r.bound IS NULL AND r.time IS NOT NULL AND r.value IS NOT NULL
