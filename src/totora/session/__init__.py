"""Sans-IO, shared by every face: in what order effects are carried out, and how a request gets exactly one outcome."""
