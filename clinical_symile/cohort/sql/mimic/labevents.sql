-- A view: all of MIMIC's results would not fit into memory.
DROP TABLE lab_results;
CREATE VIEW lab_results AS SELECT subject_id, itemid, time, value, unit, file_order FROM mimic_labevents
