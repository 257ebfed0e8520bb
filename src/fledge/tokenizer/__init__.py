"""Byte-level BPE, and chat: messages -> ids + mask."""
