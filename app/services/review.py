"""What the pages may ask about patients and X-rays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from app.records import VIEWS, Answer, Hit, Patient, Provenance, Request
from app.services.presenting import age_text, sex_text, view_text
from clinical_symile.errors import InputError
from clinical_symile.figures import cxr_data_uri, letterbox, window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clinical_symile.dataset import ArrayStore
    from clinical_symile.governance import AuditLog
    from clinical_symile.modalities import LabStatistics
    from clinical_symile.models import SymileModel
    from clinical_symile.retrieval import Gallery

HELD_OUT: Final = "test"
"""The split whose patients were neither trained on nor used to choose the model."""


class Review:
    """A model, its gallery and the dataset, opened together and verified to belong together."""

    def __init__(
        self,
        *,
        provenance: Provenance,
        store: ArrayStore,
        model: SymileModel,
        statistics: LabStatistics,
        gallery: Gallery,
        audit: AuditLog,
        scratch: Path,
    ) -> None:
        self.provenance = provenance
        self._store = store
        self._model = model
        self._statistics = statistics
        self._gallery = gallery
        self._audit = audit
        self._scratch = scratch
        self._rows = [int(row) for row in store.rows(HELD_OUT)]

    def patient_labels(self) -> list[str]:
        """A pseudonym for each patient of the held-out split, with age and sex."""
        people = self._store.table.iloc[self._rows].reindex(columns=["age", "gender"])  # a hospital may know neither
        return [
            f"Patient {number} – {age_text(age)}, {sex_text(sex)}"
            for number, (age, sex) in enumerate(zip(people["age"], people["gender"], strict=True), 1)
        ]

    def patient(self, number: int) -> Patient:
        """The patient at a place of ``patient_labels``."""
        row = self._rows[number]
        return Patient(
            self.patient_labels()[number],
            row,
            self._store.ecg_mv(row),
            self._store.labs_values[row],
            ecg_is_calibrated=self._store.ecg_is_calibrated,
        )

    def uploaded(self, ecg: Mapping[str, bytes], labs: bytes | None) -> Patient:
        """A patient from uploaded files.

        Args:
            ecg: file name -> content of the header and the signal file; empty when there is no ECG.
            labs: content of the laboratory CSV.

        Raises:
            InputError: a file cannot be used.
        """
        from clinical_symile.retrieval import read_uploaded_ecg, read_uploaded_labs

        ecg_mv = read_uploaded_ecg(ecg, self._scratch).to_mv() if ecg else None
        if labs is None:
            return Patient("Uploaded patient", None, ecg_mv, None)
        table = read_uploaded_labs(labs)
        notes = []
        if table.ignored:
            notes.append(f"Not used, because the model does not know these tests: {', '.join(table.ignored)}.")
        if table.without_unit:
            notes.append(f"Given without a unit, and taken to be in the unit shown: {', '.join(table.without_unit)}.")
        return Patient("Uploaded patient", None, ecg_mv, table.values, tuple(notes))

    def retrieve(self, patient: Patient, request: Request, occasion: str) -> Answer:
        """The X-rays that fit the patient best. They are returned only after the audit log has the event.

        In evaluation mode the X-ray of the patient's own admission is among the candidates. No other X-ray of the same
        person ever is, since a picture of the same thorax is not what is looked for.

        Args:
            patient: whose ECG and labs.
            request: what is asked.
            occasion: names this press of the button; the same occasion is recorded once.

        Raises:
            InputError: the patient has none of the requested modalities, or no X-ray has the chosen views.
            ClinicalSymileError: the audit log cannot be written.
        """
        import torch

        from clinical_symile.retrieval import embed_query, explain, percentiles, query_tensors, rank, score_gallery

        query = query_tensors(
            patient.ecg_mv if "ecg" in request.modalities else None,
            patient.labs_values if "labs" in request.modalities else None,
            self._statistics,
        )
        embedded = embed_query(self._model, query)
        own = self._own_position(patient) if request.evaluation else None
        allowed = self._gallery.where(
            views=None if set(request.views) >= set(VIEWS) else request.views,  # both: also those of unknown view
            exclude_subject=None if patient.row is None else int(self._store.table["subject_id"].iloc[patient.row]),
            keep=() if own is None else (own,),
        )
        if not allowed.any():
            raise InputError("no X-ray of the gallery has the chosen views")
        scores = score_gallery(self._gallery, embedded)
        order = rank(scores, len(scores), torch.from_numpy(allowed)).tolist()
        looked_at = order[: request.k]
        if own in order and own not in looked_at:
            looked_at.append(own)
        shares = percentiles(scores, torch.tensor(looked_at))
        hits = tuple(
            Hit(
                rank=order.index(position) + 1,
                position=position,
                score=explanation.score,
                percentile=float(share),
                view=view_text(self._gallery.table["cxr_view"].iloc[position]),
                own=position == own,
                explanation=explanation,
            )
            for position, share, explanation in zip(looked_at, shares, explain(self._gallery, embedded, looked_at), strict=True)
        )
        self._record("query", patient, request, [hit.position for hit in hits], occasion)
        return Answer(
            occasion=occasion,
            request=request,
            hits=hits[: request.k],
            own=next((hit for hit in hits if hit.own), None),
            eligible=len(order),
            gallery_size=len(self._gallery),
        )

    def record_view(self, patient: Patient, answer: Answer, hit: Hit) -> None:
        """Records that an X-ray was enlarged, once for each answer."""
        self._record("view", patient, answer.request, [hit.position], f"{answer.occasion}/{hit.position}")

    def thumbnail(self, hit: Hit) -> str:
        """An X-ray of the gallery on a black square, as a ``data:`` address.

        Streamlit serves images that are given as bytes at ``/media/…`` to whoever asks, without any check; these pixels
        travel in the session's own connection instead.
        """
        return cxr_data_uri(letterbox(self._pixels(hit)))

    def xray(self, hit: Hit, *, level: float, width: float, invert: bool) -> str:
        """An X-ray of the gallery in its own shape, at a window and level, as a ``data:`` address."""
        return cxr_data_uri(window(self._pixels(hit), level, width, invert=invert))

    def _pixels(self, hit: Hit) -> NDArray[np.uint8]:
        return self._store.cxr(int(self._gallery.table["row"].iloc[hit.position]))

    def _own_position(self, patient: Patient) -> int | None:
        """Where the gallery holds the X-ray of the patient's own admission."""
        if patient.row is None:
            return None
        # An X-ray that serves two admissions of one person is held once, so its row may be the other admission's.
        keys = self._store.table[["subject_id", "cxr_sha256"]]
        same = (keys == keys.iloc[patient.row]).all(axis=1).to_numpy()
        places = same[self._gallery.table["row"].to_numpy()].nonzero()[0]
        return int(places[0]) if len(places) else None

    def _record(
        self, event: Literal["query", "view"], patient: Patient, request: Request, positions: Sequence[int], once: str
    ) -> None:
        parts = [array.tobytes() for array in (patient.ecg_mv, patient.labs_values) if array is not None]
        record: dict[str, Any] = {
            "event": event,
            "model_version": f"{self.provenance.name}/{self.provenance.version}",
            "model_digest": self.provenance.model_digest,
            "gallery_digest": self.provenance.gallery_digest,
            "query_digest": self._audit.fingerprint(*parts),
            "modalities": request.modalities,
            "positions": tuple(positions),
        }
        self._audit.append(record, once=once)
