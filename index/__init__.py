"""Vector indexes that follow a log: int64 ids, float32 unit vectors, FAISS's words (d, ntotal, k, ids, nlist, nprobe).

    types, protocol     Ids, Embeddings, LogEntry; VectorIndex, SearchParams, LogReader, OpenedIndex
    errors, validation  what can go wrong; what a valid id or vector is
    factory             open_index, which names the implementations

    flat                FlatIndex: compares every vector
    segmented           SegmentedIndex: a sealed and a growing segment
    sealed_segment      most vectors, in mapped files
    segment_builder     builds a sealed segment
    rabitq, float16     codes of one bit a direction, made by FAISS; vectors in half precision
    idset, topk         which ids a search may find; the best of many scores

    follower            applies the log to an index, in order
    follower_loop       one thread that steps many followers
    snapshot            save and load: atomic, verified, disposable
    snapshot_scheduler  when to save
    npy_io              numpy arrays to a stream and back

    milvus              MilvusIndex: vectors in a Milvus server
    milvus_client       the connection, with deadlines
    milvus_collection   the rows of an index there
    circuit_breaker     lets calls fail at once for a while
    reconcile           makes Milvus equal to the log again

The package knows nothing of pictures, texts, HTTP or databases.
"""
