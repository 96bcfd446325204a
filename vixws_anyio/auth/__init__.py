"""Ready-made `authenticate` hooks: `jwt` (the extra `vixws[jwt]`)."""
