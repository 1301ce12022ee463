"""Placeholder until its room moves in."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
