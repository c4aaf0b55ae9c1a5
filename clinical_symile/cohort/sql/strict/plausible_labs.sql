-- A value beyond the limits of lab_limits.csv does not count; it is never clipped.
DELETE FROM lab_candidates WHERE NOT plausible
