-- A hospital as the rules see it; source.py says what the tables mean. Findings come with their labels from there.
CREATE TABLE admissions (
    subject_id BIGINT, hadm_id BIGINT, admittime TIMESTAMP, gender VARCHAR, age BIGINT, race VARCHAR,
    subject_key VARCHAR, hadm_key VARCHAR
);
CREATE TABLE images (
    subject_id BIGINT, hadm_id BIGINT, dicom_id VARCHAR, study_id BIGINT, path VARCHAR, view VARCHAR, time TIMESTAMP,
    file_order BIGINT
);
CREATE TABLE records (
    subject_id BIGINT, hadm_id BIGINT, study_id BIGINT, path VARCHAR, time TIMESTAMP, file_order BIGINT
);
CREATE TABLE lab_results (subject_id BIGINT, itemid VARCHAR, time TIMESTAMP, value DOUBLE, file_order BIGINT);

-- What the rules choose: one file per admission, one value per admission and item.
CREATE TABLE chosen_cxr (
    hadm_id BIGINT, dicom_id VARCHAR, study_id BIGINT, path VARCHAR, view VARCHAR, time TIMESTAMP
);
CREATE TABLE chosen_ecg (hadm_id BIGINT, study_id BIGINT, path VARCHAR, time TIMESTAMP);
CREATE TABLE chosen_labs (hadm_id BIGINT, itemid VARCHAR, value DOUBLE);

-- Files that turned out to be unusable.
CREATE TABLE excluded_files (path VARCHAR);

-- Only for a hospital's own manifest: its ids and the numbers that stand for them, and what is wrong with items and units.
CREATE TABLE subject_keys (key VARCHAR, id BIGINT, replaced BOOLEAN);
CREATE TABLE hadm_keys (key VARCHAR, id BIGINT, replaced BOOLEAN);
CREATE TABLE item_faults (itemid VARCHAR, unit VARCHAR, fault VARCHAR);
