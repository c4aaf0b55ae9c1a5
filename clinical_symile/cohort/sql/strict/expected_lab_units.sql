-- A result whose unit is given, and is not the item's, does not count.
DELETE FROM lab_candidates WHERE NOT unit_fits
