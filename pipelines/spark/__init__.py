"""The Spark session and what its Python workers keep."""
