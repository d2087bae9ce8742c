"""Digital patients: real anatomy, deformed, with tumours that were grown."""
