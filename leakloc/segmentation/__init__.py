"""Finding CSF inside and outside the dura: fluid map, canal, dura, collections."""
