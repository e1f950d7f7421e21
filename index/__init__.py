"""Vector indexes that follow a log: int64 ids, float32 unit vectors, FAISS's words (d, ntotal, k, ids).

    types      Ids, Embeddings, Scores, LogEntry, Manifest        errors    what can go wrong, drawn as a tree
    protocol   VectorIndex, SearchParams, Freezable               vectors   what a valid id or vector is
    idset      IdSet: which ids a search may find
    milvus     MilvusIndex: on an engine of its own               engine    the connection to it, with deadlines
    table      its rows there, and what is asked of them
    reconcile  makes the engine equal to the log again            breaker   calls that fail at once for a while
    exact      ExactIndex: every answer right, to the last bit    arrays    numpy arrays to a stream and back
    snapshot   save and load: atomic, verified, disposable        follower  applies the log in order
    factory    open_index, which names implementations           saver     when and beside whom to save

The library knows nothing of pictures, texts, HTTP or databases.
"""
