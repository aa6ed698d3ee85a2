"""stub"""
def page(cells, columns): return ""
def share(cells): return 1.0
