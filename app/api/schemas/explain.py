"""Why a picture meets words."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.api.schemas.images import WarningOut
from app.api.schemas.search import WARNINGS_FIELD
from app.service.explain import ExplainedPicture


class PlaceVerdictOut(BaseModel):
    """Whether the model knows where in the picture the words are met."""

    match: Literal["good", "weak", "none"] = Field(description="none: it does not know, and the grid means nothing.")
    confidence: float = Field(description="0: it could be either; 1: certain.")


class AreaOut(BaseModel):
    """What the model sees of a picture, in shares of its width and height; beyond 0 and 1 where it is padded."""

    left: float
    top: float
    width: float
    height: float


class WordWeightOut(BaseModel):
    """A word of the query, or some, and how much the cosine falls without it; null if nothing is left without it."""

    text: str
    weight: float | None


class ExplanationOut(BaseModel):
    """What of the picture, and what of the words, made the cosine."""

    id: str
    score: float = Field(description="The cosine of the picture and the words.")
    verdict: PlaceVerdictOut
    grid: list[list[float]] = Field(
        description="Rows of cells, from the top left: how much the cosine falls when that part is covered."
    )
    heat: list[list[float]] = Field(description="The same from 0 to 1, to be drawn; all 0 where the match is none.")
    area: AreaOut = Field(description="Where the grid lies in the picture.")
    words: list[WordWeightOut] = Field(description="In the order of the query.")
    model: str
    warnings: list[WarningOut] = WARNINGS_FIELD

    @classmethod
    def of(cls, id: str, one: ExplainedPicture) -> ExplanationOut:
        found = one.found
        left, top, width, height = (round(value, 4) for value in one.area)
        return cls(
            id=id,
            score=round(found.score, 6),
            verdict=PlaceVerdictOut(match=found.verdict.match, confidence=found.verdict.confidence),
            grid=[[round(value, 6) for value in row] for row in found.grid.tolist()],
            heat=[[round(value, 3) for value in row] for row in found.heat.tolist()],
            area=AreaOut(left=left, top=top, width=width, height=height),
            words=[
                WordWeightOut(text=word.text, weight=None if word.weight is None else round(word.weight, 6))
                for word in found.words
            ],
            model=found.model,
            warnings=[WarningOut.of(warning) for warning in one.warnings],
        )
