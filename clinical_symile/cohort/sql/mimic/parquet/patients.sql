SELECT as_id(subject_id) AS subject_id, gender, as_id(anchor_age) AS anchor_age, as_id(anchor_year) AS anchor_year
FROM csv
