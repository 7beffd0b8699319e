"""Run folders: begun, resumed and finished."""
