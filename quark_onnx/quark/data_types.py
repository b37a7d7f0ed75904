"""Data types of Quark's second API."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataType:
    """A type by its name in Quark; those that are not offered are refused where they are used."""

    name: str


Int8, UInt8, Int16, UInt16 = DataType("Int8"), DataType("UInt8"), DataType("Int16"), DataType("UInt16")
Int32, UInt32 = DataType("Int32"), DataType("UInt32")
Float16, BFloat16, BFP16 = DataType("Float16"), DataType("BFloat16"), DataType("BFP16")
MX4, MX6, MX9, MXInt8 = DataType("MX4"), DataType("MX6"), DataType("MX9"), DataType("MXInt8")
MXFP4E2M1, MXFP6E2M3, MXFP6E3M2 = DataType("MXFP4E2M1"), DataType("MXFP6E2M3"), DataType("MXFP6E3M2")
MXFP8E4M3, MXFP8E5M2 = DataType("MXFP8E4M3"), DataType("MXFP8E5M2")
