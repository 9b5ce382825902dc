def is_right(row):
    return row["completion"] == row["answer"]
