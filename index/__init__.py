"""Vector indexes that follow a log: int64 ids, float32 unit vectors, FAISS's words (d, ntotal, k, ids).

    types, protocol     Ids, Embeddings, LogEntry, Manifest; VectorIndex, SearchParams, Freezable
    errors, validation  what can go wrong, drawn as a tree; what a valid id or vector is
    factory             open_index, which names the implementations

    flat                ExactIndex: compares every vector
    segmented           LiveIndex: a sealed and a growing segment
    sealed_segment      most vectors, in mapped files
    segment_builder     how a sealed segment is made
    rabitq, float16     the codes that FAISS makes of it; vectors in half precision
    idset, topk         which ids a search may find; the best of many scores

    follower            applies the log to an index, in order
    follower_loop       one thread for many followers
    snapshot            save and load: atomic, verified, disposable
    snapshot_scheduler  when to save
    npy_io              numpy arrays to a stream and back

    milvus              MilvusIndex: vectors in a Milvus
    milvus_client       the connection, with deadlines
    milvus_collection   its rows there
    circuit_breaker     calls that fail at once for a while
    reconcile           makes Milvus equal to the log again

The library knows nothing of pictures, texts, HTTP or databases.
"""
