"""One job by pikaci, beside the same job by plain commands of incus: `make bench`."""
