-- Age at admission, as MIMIC defines it: anchor_age + (year of admission - anchor_year); 91 stands for over 89.
INSERT INTO admissions
SELECT a.subject_id, a.hadm_id, a.admittime, p.gender, p.anchor_age + year(a.admittime) - p.anchor_year, a.race,
       NULL, NULL, a.dischtime, a.deathtime
FROM mimic_admissions AS a
LEFT JOIN mimic_patients AS p ON p.subject_id = a.subject_id
