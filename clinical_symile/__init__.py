"""Clinical Symile: retrieve the chest X-ray that fits a patient's ECG and laboratory panel.

After Saporta et al., "Contrasting with Symile" (NeurIPS 2024, https://arxiv.org/abs/2411.01053). For research only.
"""

__version__ = "0.1.0"
