INSERT INTO findings SELECT * EXCLUDE (file_order) FROM mimic_chexpert
