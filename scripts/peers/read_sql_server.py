#!/usr/bin/env python3
"""Reads a store from `wavemill sql-server` with SQLAlchemy and psycopg, and prints the number of rows of log_mel.

usage: read_sql_server.py URL
"""

import sys

from sqlalchemy import MetaData, Table, create_engine, inspect, select, text


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] == "--help":
        print(__doc__.strip())
        sys.exit(0 if "--help" in sys.argv else 2)
    engine = create_engine(sys.argv[1])

    inspector = inspect(engine)
    assert inspector.default_schema_name == "store", inspector.default_schema_name
    assert {"store", "raw"} <= set(inspector.get_schema_names()), inspector.get_schema_names()
    tables = inspector.get_table_names()
    assert "tracks" in tables and "features_log_mel" in tables, tables

    rows = Table("features_log_mel", MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        read = connection.execute(select(rows.c.clip_key, rows.c.log_mel).order_by(rows.c.clip_key)).all()
        assert all(isinstance(row.log_mel, bytes) for row in read)

        # More executions than psycopg needs to prepare a statement on the server.
        for row in read[:8]:
            one = select(rows.c.log_mel).where(rows.c.clip_key == row.clip_key, rows.c.log_mel == row.log_mel)
            assert connection.execute(one).first() is not None, row.clip_key
        mean = text("SELECT tensor_mean(log_mel) FROM features_log_mel WHERE clip_key = :key")
        assert isinstance(connection.execute(mean, {"key": read[0].clip_key}).scalar(), float)

    # A cursor of the server.
    with engine.connect().execution_options(stream_results=True, max_row_buffer=2) as connection:
        streamed = connection.execute(select(rows.c.clip_key)).all()
    assert len(streamed) == len(read)
    print(len(read))


if __name__ == "__main__":
    main()
