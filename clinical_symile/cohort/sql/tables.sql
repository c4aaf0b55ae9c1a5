-- A hospital as the rules see it; source.py says what the tables mean. Findings come with their labels from there.
CREATE TABLE admissions (
    subject_id BIGINT, hadm_id BIGINT, admittime TIMESTAMP, gender VARCHAR, age BIGINT, race VARCHAR,
    subject_key VARCHAR, hadm_key VARCHAR, dischtime TIMESTAMP, deathtime TIMESTAMP
);
CREATE TABLE images (
    subject_id BIGINT, hadm_id BIGINT, dicom_id VARCHAR, study_id BIGINT, path VARCHAR, view VARCHAR, time TIMESTAMP,
    file_order BIGINT
);
CREATE TABLE records (
    subject_id BIGINT, hadm_id BIGINT, study_id BIGINT, path VARCHAR, time TIMESTAMP, file_order BIGINT
);
CREATE TABLE lab_results (
    subject_id BIGINT, itemid VARCHAR, time TIMESTAMP, value DOUBLE, unit VARCHAR, file_order BIGINT
);

-- What lies in the windows. since_us is the time since admission, in_stay whether that is before discharge or death; NULL: not known.
CREATE TABLE cxr_candidates (
    hadm_id BIGINT, dicom_id VARCHAR, study_id BIGINT, path VARCHAR, view VARCHAR, time TIMESTAMP, file_order BIGINT,
    since_us BIGINT, in_stay BOOLEAN
);
CREATE TABLE ecg_candidates (
    hadm_id BIGINT, study_id BIGINT, path VARCHAR, time TIMESTAMP, file_order BIGINT, since_us BIGINT, in_stay BOOLEAN
);

-- Of each admission, item and verdict the earliest result, and how many results there are.
CREATE TABLE lab_candidates (
    hadm_id BIGINT, itemid VARCHAR, unit_fits BOOLEAN, plausible BOOLEAN, results BIGINT,
    first STRUCT(time TIMESTAMP, file_order BIGINT, value DOUBLE)
);

-- What the rules choose: one file per admission, one value per admission and item.
CREATE TABLE chosen_cxr (
    hadm_id BIGINT, dicom_id VARCHAR, study_id BIGINT, path VARCHAR, view VARCHAR, time TIMESTAMP, in_stay BOOLEAN
);
CREATE TABLE chosen_ecg (hadm_id BIGINT, study_id BIGINT, path VARCHAR, time TIMESTAMP);
CREATE TABLE chosen_labs (hadm_id BIGINT, itemid VARCHAR, value DOUBLE, unit_fits BOOLEAN, plausible BOOLEAN);

-- ECGs that were opened and have a flat lead.
CREATE TABLE flat_ecgs (path VARCHAR);

-- Which values an item can have, and which units of the hospital's are not the item's.
CREATE TABLE lab_limits (itemid VARCHAR, low DOUBLE, high DOUBLE);
CREATE TABLE other_units (itemid VARCHAR, unit VARCHAR);

-- Only for a hospital's own manifest: its ids and the numbers that stand for them, and what is wrong with items and units.
CREATE TABLE subject_keys (key VARCHAR, id BIGINT, replaced BOOLEAN);
CREATE TABLE hadm_keys (key VARCHAR, id BIGINT, replaced BOOLEAN);
CREATE TABLE item_faults (itemid VARCHAR, unit VARCHAR, fault VARCHAR, factor DOUBLE, becomes VARCHAR);
