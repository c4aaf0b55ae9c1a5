-- Age at admission, as MIMIC defines it: anchor_age + (year of admission - anchor_year); 91 stands for over 89.
INSERT INTO admissions
SELECT as_id(a.subject_id), as_id(a.hadm_id), as_time(a.admittime), p.gender,
       as_id(p.anchor_age) + year(as_time(a.admittime)) - as_id(p.anchor_year), a.race, NULL, NULL
FROM raw_admissions AS a
LEFT JOIN raw_patients AS p ON p.subject_id = a.subject_id
