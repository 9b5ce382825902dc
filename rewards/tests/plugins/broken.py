raise RuntimeError("no licence for the solver")
