-- The member of a cluster that an instance was asked for on; "" where Incus is no cluster.

ALTER TABLE leases ADD COLUMN member TEXT NOT NULL DEFAULT '';
