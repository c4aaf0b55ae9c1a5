"""The words of the domain: modalities, lead names, laboratory items, splits, labels.

Everything here is a fact about the data that more than one room needs. Nothing here imports another room.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Modality = Literal["cxr", "ecg", "labs"]
MODALITIES: Final[tuple[Modality, ...]] = ("cxr", "ecg", "labs")

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")

ECG_LEADS: Final[tuple[str, ...]] = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
"""Lead order of MIMIC-IV-ECG and of every ECG tensor here: aVF comes *before* aVL."""

ECG_FS_HZ: Final = 500
ECG_SECONDS: Final = 10
ECG_SAMPLES: Final = ECG_FS_HZ * ECG_SECONDS


class EcgCondition(NamedTuple):
    """What is wrong with an ECG record, if anything.

    ``fault`` says why it cannot be used, ``None`` when it can; ``flat_leads`` are the leads of a usable record that show no
    deflection.
    """

    fault: str | None = None
    flat_leads: tuple[str, ...] = ()


CXR_SIZE: Final = 320
"""Side, in pixels, of the square crop that the encoders see; the stored image's short side has this length."""

FRONTAL_VIEWS: Final[tuple[str, ...]] = ("AP", "PA")

CHEXPERT_LABELS: Final[tuple[str, ...]] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)


class LabItem(NamedTuple):
    """One of the 50 laboratory tests of Symile-MIMIC.

    ``label`` is the text of MIMIC's ``d_labitems``; ``name`` is what a person should read (MIMIC labels the three serum
    indices just ``H``, ``L`` and ``I``, which look like flags). ``unit`` and the reference range are the most frequent
    ones in the MIMIC-IV demo, ``None`` where MIMIC gives no range.
    """

    itemid: str
    label: str
    name: str
    unit: str
    reference_low: float | None
    reference_high: float | None
    category: str


LAB_ITEMS: Final[tuple[LabItem, ...]] = (
    LabItem("50802", "Base Excess", "Base Excess", "mEq/L", None, None, "Blood Gas"),
    LabItem("50804", "Calculated Total CO2", "Calculated Total CO2", "mEq/L", 21.0, 30.0, "Blood Gas"),
    LabItem("50813", "Lactate", "Lactate", "mmol/L", 0.5, 2.0, "Blood Gas"),
    LabItem("50818", "pCO2", "pCO2", "mm Hg", 35.0, 45.0, "Blood Gas"),
    LabItem("50820", "pH", "pH", "units", 7.35, 7.45, "Blood Gas"),
    LabItem("50821", "pO2", "pO2", "mm Hg", 85.0, 105.0, "Blood Gas"),
    LabItem("50861", "Alanine Aminotransferase (ALT)", "Alanine Aminotransferase (ALT)", "IU/L", 0.0, 40.0, "Chemistry"),
    LabItem("50862", "Albumin", "Albumin", "g/dL", 3.5, 5.2, "Chemistry"),
    LabItem("50863", "Alkaline Phosphatase", "Alkaline Phosphatase", "IU/L", 40.0, 130.0, "Chemistry"),
    LabItem("50868", "Anion Gap", "Anion Gap", "mEq/L", 8.0, 20.0, "Chemistry"),
    LabItem("50878", "Asparate Aminotransferase (AST)", "Aspartate Aminotransferase (AST)", "IU/L", 0.0, 40.0, "Chemistry"),
    LabItem("50882", "Bicarbonate", "Bicarbonate", "mEq/L", 22.0, 32.0, "Chemistry"),
    LabItem("50885", "Bilirubin, Total", "Bilirubin, Total", "mg/dL", 0.0, 1.5, "Chemistry"),
    LabItem("50893", "Calcium, Total", "Calcium, Total", "mg/dL", 8.4, 10.3, "Chemistry"),
    LabItem("50902", "Chloride", "Chloride", "mEq/L", 96.0, 108.0, "Chemistry"),
    LabItem("50910", "Creatine Kinase (CK)", "Creatine Kinase (CK)", "IU/L", 47.0, 322.0, "Chemistry"),
    LabItem("50912", "Creatinine", "Creatinine", "mg/dL", 0.5, 1.2, "Chemistry"),
    LabItem("50931", "Glucose", "Glucose", "mg/dL", 70.0, 100.0, "Chemistry"),
    LabItem("50934", "H", "Hemolysis index", "", None, None, "Chemistry"),
    LabItem("50947", "I", "Icterus index", "", None, None, "Chemistry"),
    LabItem("50960", "Magnesium", "Magnesium", "mg/dL", 1.6, 2.6, "Chemistry"),
    LabItem("50970", "Phosphate", "Phosphate", "mg/dL", 2.7, 4.5, "Chemistry"),
    LabItem("50971", "Potassium", "Potassium", "mEq/L", 3.3, 5.1, "Chemistry"),
    LabItem("50983", "Sodium", "Sodium", "mEq/L", 133.0, 145.0, "Chemistry"),
    LabItem("51006", "Urea Nitrogen", "Urea Nitrogen", "mg/dL", 6.0, 20.0, "Chemistry"),
    LabItem("51133", "Absolute Lymphocyte Count", "Absolute Lymphocyte Count", "K/uL", 1.2, 3.7, "Hematology"),
    LabItem("51146", "Basophils", "Basophils", "%", 0.0, 1.0, "Hematology"),
    LabItem("51200", "Eosinophils", "Eosinophils", "%", 1.0, 7.0, "Hematology"),
    LabItem("51221", "Hematocrit", "Hematocrit", "%", 34.0, 45.0, "Hematology"),
    LabItem("51222", "Hemoglobin", "Hemoglobin", "g/dL", 11.2, 15.7, "Hematology"),
    LabItem("51237", "INR(PT)", "INR(PT)", "", 0.9, 1.1, "Hematology"),
    LabItem("51244", "Lymphocytes", "Lymphocytes", "%", 19.0, 53.0, "Hematology"),
    LabItem("51248", "MCH", "MCH", "pg", 26.0, 32.0, "Hematology"),
    LabItem("51249", "MCHC", "MCHC", "g/dL", 32.0, 37.0, "Hematology"),
    LabItem("51250", "MCV", "MCV", "fL", 82.0, 98.0, "Hematology"),
    LabItem("51254", "Monocytes", "Monocytes", "%", 5.0, 13.0, "Hematology"),
    LabItem("51256", "Neutrophils", "Neutrophils", "%", 34.0, 71.0, "Hematology"),
    LabItem("51265", "Platelet Count", "Platelet Count", "K/uL", 150.0, 400.0, "Hematology"),
    LabItem("51274", "PT", "PT", "sec", 9.4, 12.5, "Hematology"),
    LabItem("51275", "PTT", "PTT", "sec", 25.0, 36.5, "Hematology"),
    LabItem("51277", "RDW", "RDW", "%", 10.5, 15.5, "Hematology"),
    LabItem("51279", "Red Blood Cells", "Red Blood Cells", "m/uL", 3.9, 5.2, "Hematology"),
    LabItem("51301", "White Blood Cells", "White Blood Cells", "K/uL", 4.0, 10.0, "Hematology"),
    LabItem("51678", "L", "Lipemia index", "", None, None, "Chemistry"),
    LabItem("52069", "Absolute Basophil Count", "Absolute Basophil Count", "K/uL", 0.01, 0.08, "Hematology"),
    LabItem("52073", "Absolute Eosinophil Count", "Absolute Eosinophil Count", "K/uL", 0.04, 0.54, "Hematology"),
    LabItem("52074", "Absolute Monocyte Count", "Absolute Monocyte Count", "K/uL", 0.2, 0.8, "Hematology"),
    LabItem("52075", "Absolute Neutrophil Count", "Absolute Neutrophil Count", "K/uL", 1.6, 6.1, "Hematology"),
    LabItem("52135", "Immature Granulocytes", "Immature Granulocytes", "%", 0.0, 0.6, "Hematology"),
    LabItem("52172", "RDW-SD", "RDW-SD", "fL", 35.1, 46.3, "Hematology"),
)
"""In tensor order: ascending item id, compared as strings (the order of the release's ``labs_means.json``)."""

LAB_ITEM_IDS: Final[tuple[str, ...]] = tuple(item.itemid for item in LAB_ITEMS)
