"""Runs a matrix of cells and writes records."""
