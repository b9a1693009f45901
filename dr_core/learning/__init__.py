"""How it learns: the E-step, s[v, c], the M-step and the loop around them; its start, its budget, its configuration."""
