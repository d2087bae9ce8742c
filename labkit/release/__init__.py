"""From one reviewed source to the editions: instructors' notebooks, students' notebooks, the workbook."""
