"""Other frameworks as sides; each script needs only its framework and Python itself."""
